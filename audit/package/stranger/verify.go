// Verify an evidence package with nothing of Keystead: public modules by the Go project and transparency-dev.
//
//	go run -mod=readonly verify.go [-witness VKEY]... [-quorum N] [-show INDEX] VKEY
//
// Run it in the unpacked folder. VKEY is the log's verifier key, NAME+KEYID+BASE64, which you got from somebody other
// than whoever gave you the package. It prints what is proven, and ends with 0; or says what is wrong, and ends with 1.
//
// This file came with the package, so read it before you believe it; it is short. Signatures, cosignatures, checkpoints
// and proofs are checked by others' modules; what is left to this file is to open records and to compare digests.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/transparency-dev/formats/log"
	cosignature "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

var head = []string{"log", "size", "asset", "tenant", "from", "until", "first", "end", "records"}

type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func main() {
	var witnesses list
	flag.Var(&witnesses, "witness", "a witness's verifier key; repeat for each")
	quorum := flag.Int("quorum", -1, "so many of them must have cosigned; all where not given")
	show := flag.Int64("show", -1, "print the record of this entry")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := verify(flag.Arg(0), witnesses, *quorum, *show); err != nil {
		fmt.Fprintln(os.Stderr, "NOT VERIFIED:", err)
		os.Exit(1)
	}
}

// verifySignedNote returns the text of a note that the log's key signed.
func verifySignedNote(name string, verifier note.Verifier) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return opened.Text, nil
}

// manifest returns the values of the signed manifest, once every file is seen to be what it names.
func manifest(verifier note.Verifier) (map[string]string, error) {
	text, err := verifySignedNote("manifest", verifier)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < len(head)+1 || lines[0] != "keystead evidence package v1" {
		return nil, errors.New("manifest: of another version")
	}
	values := map[string]string{}
	for number, name := range head {
		label, value, _ := strings.Cut(lines[number+1], " ")
		if label != name {
			return nil, fmt.Errorf("manifest: %q where %q should be", label, name)
		}
		values[name] = value
	}
	if values["log"] != verifier.Name() {
		return nil, errors.New("manifest: of another log")
	}
	names := map[string]bool{"manifest": true}
	form := regexp.MustCompile(`^[0-9a-f]{64} [0-9]+ ([A-Za-z][A-Za-z.-]*)$`)
	for _, line := range lines[len(head)+1:] {
		match := form.FindStringSubmatch(line)
		if match == nil || names[match[1]] {
			return nil, fmt.Errorf("manifest: line %q", line)
		}
		names[match[1]] = true
		file, err := os.Open(match[1])
		if err != nil {
			return nil, err
		}
		digest := sha256.New()
		size, err := io.Copy(digest, file)
		file.Close()
		if err != nil {
			return nil, err
		}
		if fmt.Sprintf("%x %d %s", digest.Sum(nil), size, match[1]) != line {
			return nil, fmt.Errorf("%s: not what was signed", match[1])
		}
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if !names[entry.Name()] {
			return nil, fmt.Errorf("%s: a file that nothing vouches for", entry.Name())
		}
	}
	return values, nil
}

func verify(vkey string, witnesses []string, quorum int, show int64) error {
	verifier, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return err
	}
	values, err := manifest(verifier)
	if err != nil {
		return err
	}
	number := func(name string) uint64 {
		value, problem := strconv.ParseUint(values[name], 10, 63)
		if problem != nil && err == nil {
			err = fmt.Errorf("manifest: %s: %w", name, problem)
		}
		return value
	}
	size, first, end, records := number("size"), number("first"), number("end"), number("records")
	if err != nil {
		return err
	}

	// The checkpoint, and who cosigned it.
	var known []note.Verifier
	for _, key := range witnesses {
		witness, err := cosignature.NewVerifierForCosignatureV1(key)
		if err != nil {
			return err
		}
		known = append(known, witness)
	}
	data, err := os.ReadFile("checkpoint")
	if err != nil {
		return err
	}
	checkpoint, _, opened, err := log.ParseCheckpoint(data, verifier.Name(), verifier, known...)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if checkpoint.Size != size {
		return errors.New("checkpoint: of another size than the manifest says")
	}
	watched := map[string]bool{}
	for _, signature := range opened.Sigs {
		if signature.Name != verifier.Name() || signature.Hash != verifier.KeyHash() {
			watched[fmt.Sprint(signature.Name, signature.Hash)] = true
		}
	}
	if quorum < 0 {
		quorum = len(witnesses)
	}
	if len(watched) < quorum {
		return fmt.Errorf("checkpoint: cosigned by %d of the witnesses, %d are needed", len(watched), quorum)
	}

	// Older checkpoints, which the log continues.
	data, err = os.ReadFile("package.json")
	if err != nil {
		return err
	}
	var about struct {
		Proofs map[string][][]byte `json:"consistency_proofs"`
		Gaps   []struct {
			Code  string `json:"code"`
			Count uint64 `json:"count"`
		} `json:"gaps"`
	}
	if err := json.Unmarshal(data, &about); err != nil {
		return err
	}
	var names []string
	for name := range about.Proofs {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		older, _, _, err := log.ParseCheckpoint(data, verifier.Name(), verifier)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, older.Size, size, about.Proofs[name], older.Hash, checkpoint.Hash); err != nil {
			return fmt.Errorf("%s: the log does not continue it: %w", name, err)
		}
		fmt.Printf("the log only grew since its %d entries of %s\n", older.Size, name)
	}

	// Every record, under the one checkpoint.
	whole := values["asset"] == "*" && values["tenant"] == "*"
	file, err := os.Open("records.jsonl")
	if err != nil {
		return err
	}
	defer file.Close()
	var count, readable uint64
	next := first
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var item struct {
			Index     uint64          `json:"index"`
			LeafHash  string          `json:"leaf_hash"`
			Salt      []byte          `json:"salt"`
			Record    json.RawMessage `json:"record"`
			Inclusion [][]byte        `json:"inclusion_proof"`
		}
		if err := json.Unmarshal(scanner.Bytes(), &item); err != nil {
			return err
		}
		if item.Index < next || item.Index >= end || (whole && item.Index != next) {
			return fmt.Errorf("entry %d: out of its place", item.Index)
		}
		next, count = item.Index+1, count+1
		leaf, err := hex.DecodeString(item.LeafHash)
		if err != nil {
			return fmt.Errorf("entry %d: %w", item.Index, err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, item.Index, size, leaf, item.Inclusion, checkpoint.Hash); err != nil {
			return fmt.Errorf("entry %d: not under the checkpoint: %w", item.Index, err)
		}
		if !bytes.Equal(item.Record, []byte("null")) {
			// The record's bytes stand in the line as they were signed: canonical JSON inside canonical JSON.
			if !bytes.Equal(leaf, leafHash(item.Salt, item.Record)) {
				return fmt.Errorf("entry %d: the record is not what was signed", item.Index)
			}
			readable++
		}
		if show >= 0 && item.Index == uint64(show) {
			fmt.Println(string(item.Record))
		}
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	if count != records {
		return fmt.Errorf("records: %d are here, %d were signed", count, records)
	}
	if whole && next != end {
		return fmt.Errorf("entry %d: missing", next)
	}

	fmt.Printf("log %s: %d entries under root %x, cosigned by %d of your witnesses\n", verifier.Name(), size, checkpoint.Hash, len(watched))
	fmt.Printf("about asset %s, tenant %s (* is all), entries %d to before %d\n", values["asset"], values["tenant"], first, end)
	fmt.Printf("VERIFIED: %d records, %d of them readable\n", count, readable)
	for _, gap := range about.Gaps {
		fmt.Printf("gap %s: %d\n", gap.Code, gap.Count)
	}
	return nil
}

// leafHash is the hash that the tree has for a record: of a labelled envelope that commits to salt and record.
func leafHash(salt, record []byte) []byte {
	const label = "keystead/v1/audit-leaf"
	commitment := sha256.Sum256(append(append([]byte{}, salt...), record...))
	leaf := binary.BigEndian.AppendUint16(nil, uint16(len(label)))
	leaf = append(leaf, label...)
	leaf = binary.BigEndian.AppendUint16(leaf, 1)
	leaf = binary.BigEndian.AppendUint32(leaf, uint32(len(commitment)))
	return rfc6962.DefaultHasher.HashLeaf(append(leaf, commitment[:]...))
}
