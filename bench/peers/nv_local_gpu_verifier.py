"""NVIDIA's nv-local-gpu-verifier on evidence that was given to it, without a network, run by its own interpreter.

What is measured is what its `attest` does with one GPU, by the same functions in the same order: parse the report,
verify the certificate chain and compare the FWID, compare nonce and versions, verify the signature; for each of the two
manifests parse it and the schema, validate it, verify its certificate chain and its XML signature; compare the
measurements. Left out is what needs a GPU, a terminal or a network: NVML, logging, fetching manifests, OCSP (requests
and the verification of responses), claims as a token. So the peer does less than it would, and less than Keystead does
on the same evidence, which verifies OCSP responses too.

Reads JSON on standard input, writes JSON on standard output: CPU seconds of one call, by what was called.
"""

import gc
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 7
CALLS = 3


def main() -> None:
    """Measure."""
    case = json.load(sys.stdin)
    output = sys.stdout
    # The peer prints, and writes its log file, to wherever it is started.
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        timings = measure(case, Path(folder))
        os.chdir("/")
    json.dump(timings, output)


def measure(case: dict[str, Any], folder: Path) -> dict[str, list[float]]:
    """CPU seconds by name of the call."""
    from OpenSSL import crypto
    from verifier.attestation import AttestationReport
    from verifier.cc_admin_utils import CcAdminUtils
    from verifier.config import BaseSettings, BlackwellSettings, HopperSettings
    from verifier.rim import RIM
    from verifier.verifier import Verifier

    logging.disable(logging.CRITICAL)
    settings = {"hopper": HopperSettings, "blackwell": BlackwellSettings}[case["architecture"]]()
    root = folder / "root.pem"
    root.write_text(case["rim_root"])
    settings.RIM_ROOT_CERT = str(root)
    settings.ROOT_CERT_DIR = str(folder)
    data, nonce = bytes.fromhex(case["evidence"]), bytes.fromhex(case["nonce"])
    modes = BaseSettings.Certificate_Chain_Verification_Mode

    def evidence() -> AttestationReport:
        report = AttestationReport(data, settings)
        chain = [crypto.load_certificate(crypto.FILETYPE_PEM, pem.encode()) for pem in case["chain"]]
        fwid = report.get_response_message().get_opaque_data().get_data("OPAQUE_FIELD_ID_FWID").hex()
        good, _, _ = CcAdminUtils.verify_gpu_certificate_chain(chain, settings, fwid)
        expect(good, "certificate chain")
        good = CcAdminUtils.verify_attestation_report(
            attestation_report_obj=report,
            gpu_leaf_certificate=chain[0],
            nonce=nonce,
            driver_version=case["driver"],
            vbios_version=case["vbios"].lower(),
            settings=settings,
        )
        expect(good, "attestation report")
        return report

    def manifest(name: str, mode: object) -> RIM:
        rim = RIM(rim_name=name, settings=settings, content=case[f"{name}_rim"])
        expect(rim.validate_schema(), f"{name} schema")
        chain = rim.extract_certificates()
        chain.append(crypto.load_certificate(crypto.FILETYPE_PEM, case["rim_root"].encode()))
        good, _, _ = CcAdminUtils.verify_certificate_chain(chain, settings, mode)
        expect(good, f"{name} chain")
        expect(rim.verify_signature(settings), f"{name} signature")
        return rim

    def verdict() -> None:
        report = evidence()
        driver, vbios = manifest("driver", modes.DRIVER_RIM_CERT), manifest("vbios", modes.VBIOS_RIM_CERT)
        expect(Verifier(report, driver, vbios, settings=settings).verify(settings), "measurements")

    return {name: seconds(call) for name, call in (("evidence", evidence), ("verdict", verdict))}


def expect(good: object, what: str) -> None:
    """Stop where the peer does not accept what it must accept: a refusal costs less than a verdict."""
    if not good:
        raise SystemExit(f"the peer refuses: {what}")


def seconds(call: Callable[[], object]) -> list[float]:
    """CPU seconds of one call, by round."""
    call()
    gc.disable()
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.process_time() - started) / CALLS)
        gc.collect()
    return rounds


if __name__ == "__main__":
    main()
