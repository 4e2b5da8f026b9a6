/* A library with the functions, structures and calling convention of NVIDIA's NSCQ (API version 2.0.0, as published in
 * nscq_attestation.h), serving files from the folder that NSCQ_STANDIN names:
 *   count          how many switches there are (one digit)
 *   mode           TNVL mode of all (one signed number)
 *   N.report       evidence of switch N        N.chain   its certificate chain
 *   size           overrides report_size       fail      "PATH RC": the observation of PATH calls back with RC
 *   create, observe, twice   what those functions return; call back twice
 * The nonce that was set last is written to "nonce", and a destroyed session to "destroyed". */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int8_t nscq_rc_t;
typedef struct { uint8_t bytes[16]; } nscq_uuid_t;
typedef struct { char data[64]; } nscq_label_t;
typedef struct { uint32_t report_size; uint8_t report[0x2000]; } nscq_attestation_report_t;
typedef struct { uint8_t cert_chain[0x1400]; uint32_t cert_chain_size; } nscq_attestation_certificate_t;
typedef struct nscq_session_st { int alive; } *nscq_session_t;
typedef struct { nscq_rc_t rc; nscq_session_t session; } nscq_session_result_t;
typedef void (*nscq_fn_t)(void);
typedef void (*uuid_fn)(const nscq_uuid_t *, nscq_rc_t, const nscq_uuid_t *, void *);
typedef void (*mode_fn)(const nscq_uuid_t *, nscq_rc_t, int8_t, void *);
typedef void (*report_fn)(const nscq_uuid_t *, nscq_rc_t, nscq_attestation_report_t, void *);
typedef void (*chain_fn)(const nscq_uuid_t *, nscq_rc_t, nscq_attestation_certificate_t, void *);

static FILE *opened(const char *name, const char *how) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("NSCQ_STANDIN"), name);
    return fopen(path, how);
}

static uint32_t contents(const char *name, void *into, size_t room) {
    FILE *file = opened(name, "rb");
    if (!file) return 0;
    size_t size = fread(into, 1, room, file);
    fclose(file);
    return (uint32_t)size;
}

static int number(const char *name, int otherwise) {
    char text[32] = {0};
    return contents(name, text, sizeof text - 1) ? atoi(text) : otherwise;
}

static void store(const char *name, const void *data, size_t size) {
    FILE *file = opened(name, "wb");
    if (file) { fwrite(data, 1, size, file); fclose(file); }
}

nscq_session_result_t nscq_session_create(uint32_t flags) {
    nscq_session_result_t made = {(nscq_rc_t)(flags == 1 ? number("create", 0) : -5), NULL};
    if (made.rc >= 0 && number("session", 1)) { made.session = calloc(1, sizeof *made.session); made.session->alive = 1; }
    return made;
}

void nscq_session_destroy(nscq_session_t session) { store("destroyed", "", 0); free(session); }

nscq_rc_t nscq_session_set_input(nscq_session_t session, uint32_t flags, void *data, uint32_t size) {
    if (!session->alive || flags || size != 32) return -5;
    store("nonce", data, size);
    return (nscq_rc_t)number("input", 0);
}

nscq_rc_t nscq_uuid_to_label(const nscq_uuid_t *uuid, nscq_label_t *label, uint32_t flags) {
    if (flags) return -5;
    snprintf(label->data, sizeof label->data, "SWX-%02X%02X", uuid->bytes[0], uuid->bytes[15]);
    return (nscq_rc_t)number("label", 0);
}

/* Switch 0 has the last UUID: they are found in another order than their names'. */
static nscq_uuid_t uuid_of(int index) {
    nscq_uuid_t uuid = {{0xAB}};
    uuid.bytes[15] = (uint8_t)(number("same", 0) ? 7 : 15 - index);
    return uuid;
}

static nscq_rc_t outcome(const char *path) {
    char text[256] = {0}, *space;
    if (!contents("fail", text, sizeof text - 1) || !(space = strchr(text, ' '))) return 0;
    *space = 0;
    return strstr(path, text) ? (nscq_rc_t)atoi(space + 1) : 0;
}

nscq_rc_t nscq_session_path_observe(nscq_session_t session, const char *path, nscq_fn_t call, void *data, uint32_t flags) {
    nscq_rc_t rc = outcome(path);
    int count = number("count", 0);
    if (!session->alive || flags) return -5;
    for (int index = 0; index < count; index++) {
        nscq_uuid_t uuid = uuid_of(index);
        nscq_label_t label;
        char name[32], wanted[160];
        nscq_uuid_to_label(&uuid, &label, 0);
        if (!strcmp(path, "/drv/nvswitch/{device}/uuid")) {
            ((uuid_fn)call)(&uuid, rc, rc < 0 ? NULL : &uuid, data);
            continue;
        }
        snprintf(wanted, sizeof wanted, "/%s/config/", label.data);
        if (strncmp(path, wanted, strlen(wanted))) continue;
        const char *what = path + strlen(wanted);
        for (int times = 0; times < number("times", 1); times++) {
            if (!strcmp(what, "pcie_mode")) {
                ((mode_fn)call)(&uuid, rc, (int8_t)number("mode", 3), data);
            } else if (!strcmp(what, "attestation_report")) {
                nscq_attestation_report_t report = {0};
                snprintf(name, sizeof name, "%d.report", index);
                report.report_size = contents(name, report.report, sizeof report.report);
                report.report_size = (uint32_t)number("size", (int)report.report_size);
                ((report_fn)call)(&uuid, rc, report, data);
            } else if (!strcmp(what, "certificate")) {
                nscq_attestation_certificate_t chain = {0};
                snprintf(name, sizeof name, "%d.chain", index);
                chain.cert_chain_size = contents(name, chain.cert_chain, sizeof chain.cert_chain);
                ((chain_fn)call)(&uuid, rc, chain, data);
            }
        }
    }
    return (nscq_rc_t)number("observe", 0);
}
