// Stranger verifies a published log with public modules alone; nothing of Keystead is in it.
//
//	stranger fsck      DIR|URL VKEY
//	stranger proofs    DIR VKEY OLD-CHECKPOINT
//	stranger bundle    VKEY BUNDLE
//	stranger tlogproof VKEY LEAF-HASH < PROOF
//	stranger witnessed VKEY QUORUM WITNESS-VKEY... < CHECKPOINT
//	stranger witness   URL ORIGIN-SKEY WITNESS-VKEY
//
// It prints one line of JSON and ends with 0 where everything verified, else with 1 and a line that says why.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	tproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: see the head of main.go")
	}
	switch args[0] {
	case "fsck":
		return check(args[1], args[2])
	case "proofs":
		return proofs(args[1], args[2], args[3])
	case "bundle":
		return bundle(args[1], args[2])
	case "tlogproof":
		return tlogProof(args[1], args[2])
	case "witnessed":
		return witnessed(args[1], args[2], args[3:])
	case "witness":
		return askWitness(args[1], args[2], args[3])
	}
	return fmt.Errorf("no such command: %s", args[0])
}

func say(values map[string]any) error { return json.NewEncoder(os.Stdout).Encode(values) }

func fetcher(where string) (fsck.Fetcher, error) {
	if !strings.HasPrefix(where, "http") {
		return &client.FileFetcher{Root: where}, nil
	}
	root, err := url.Parse(where)
	if err != nil {
		return nil, err
	}
	return client.NewHTTPFetcher(root, http.DefaultClient)
}

func leafHashes(data []byte) ([][]byte, error) {
	var entries api.EntryBundle
	if err := entries.UnmarshalText(data); err != nil {
		return nil, err
	}
	var hashes [][]byte
	for _, entry := range entries.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}

// check rebuilds the whole tree from the entry bundles with Tessera's fsck.
func check(where, vkey string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	source, err := fetcher(where)
	if err != nil {
		return err
	}
	if err := fsck.New(verifier.Name(), verifier, source, leafHashes, fsck.Opts{N: 2}).Check(context.Background()); err != nil {
		return err
	}
	checkpoint, _, _, err := client.FetchCheckpoint(context.Background(), source.ReadCheckpoint, verifier, verifier.Name())
	if err != nil {
		return err
	}
	return say(map[string]any{"size": checkpoint.Size, "root": hex.EncodeToString(checkpoint.Hash)})
}

// proofs builds an inclusion proof of every entry and the consistency proof from an older checkpoint, with Tessera's
// client from the tiles, and verifies them with transparency-dev/merkle and with golang.org/x/mod/sumdb/tlog.
func proofs(where, vkey, oldFile string) error {
	ctx := context.Background()
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	source, err := fetcher(where)
	if err != nil {
		return err
	}
	checkpoint, _, _, err := client.FetchCheckpoint(ctx, source.ReadCheckpoint, verifier, verifier.Name())
	if err != nil {
		return err
	}
	oldData, err := os.ReadFile(oldFile)
	if err != nil {
		return err
	}
	old, _, _, err := log.ParseCheckpoint(oldData, verifier.Name(), verifier)
	if err != nil {
		return err
	}
	builder, err := client.NewProofBuilder(ctx, checkpoint.Size, source.ReadTile)
	if err != nil {
		return err
	}
	leaves, err := client.FetchLeafHashes(ctx, source.ReadTile, 0, checkpoint.Size, checkpoint.Size)
	if err != nil {
		return err
	}
	for index := uint64(0); index < checkpoint.Size; index++ {
		path, err := builder.InclusionProof(ctx, index)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, checkpoint.Size, leaves[index], path, checkpoint.Hash); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if err := tlog.CheckRecord(records(path), int64(checkpoint.Size), tlog.Hash(checkpoint.Hash), int64(index), tlog.Hash(leaves[index])); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	path, err := builder.ConsistencyProof(ctx, old.Size, checkpoint.Size)
	if err != nil {
		return err
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old.Size, checkpoint.Size, path, old.Hash, checkpoint.Hash); err != nil {
		return err
	}
	return say(map[string]any{"inclusion": checkpoint.Size, "from": old.Size})
}

func records(path [][]byte) tlog.RecordProof {
	var result tlog.RecordProof
	for _, hash := range path {
		result = append(result, tlog.Hash(hash))
	}
	return result
}

// bundle verifies what `keystead audit prove` writes: record, leaf, inclusion and consistency.
func bundle(vkey, file string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var content struct {
		Index            uint64          `json:"index"`
		Leaf             []byte          `json:"leaf"`
		Salt             []byte          `json:"salt"`
		Record           json.RawMessage `json:"record"`
		Inclusion        [][]byte        `json:"inclusion_proof"`
		Checkpoint       string          `json:"checkpoint"`
		OlderCheckpoint  *string         `json:"older_checkpoint"`
		ConsistencyProof [][]byte        `json:"consistency_proof"`
	}
	if err := json.Unmarshal(data, &content); err != nil {
		return err
	}
	checkpoint, _, _, err := log.ParseCheckpoint([]byte(content.Checkpoint), verifier.Name(), verifier)
	if err != nil {
		return err
	}
	hash := rfc6962.DefaultHasher.HashLeaf(content.Leaf)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, content.Index, checkpoint.Size, hash, content.Inclusion, checkpoint.Hash); err != nil {
		return err
	}
	// The leaf ends in SHA-256(salt ‖ record); the file holds the record in canonical form.
	digest := sha256.Sum256(append(append([]byte{}, content.Salt...), content.Record...))
	if !bytes.HasSuffix(content.Leaf, digest[:]) {
		return fmt.Errorf("the record is not under the leaf")
	}
	answer := map[string]any{"index": content.Index, "size": checkpoint.Size}
	if content.OlderCheckpoint != nil {
		older, _, _, err := log.ParseCheckpoint([]byte(*content.OlderCheckpoint), verifier.Name(), verifier)
		if err != nil {
			return err
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, older.Size, checkpoint.Size, content.ConsistencyProof, older.Hash, checkpoint.Hash); err != nil {
			return err
		}
		answer["continues"] = older.Size
	}
	return say(answer)
}

// tlogProof verifies C2SP tlog-proof text, as `keystead audit prove --tlog-proof` writes it.
func tlogProof(vkey, leafHash string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var parsed tproof.TLogProof
	if err := parsed.Unmarshal(text); err != nil {
		return err
	}
	checkpoint, _, _, err := log.ParseCheckpoint(parsed.Checkpoint, verifier.Name(), verifier)
	if err != nil {
		return err
	}
	hash, err := hex.DecodeString(leafHash)
	if err != nil {
		return err
	}
	var path [][]byte
	for _, item := range parsed.Hashes {
		path = append(path, item[:])
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, parsed.Index, checkpoint.Size, hash, path, checkpoint.Hash); err != nil {
		return err
	}
	return say(map[string]any{"index": parsed.Index, "size": checkpoint.Size})
}

// witnessed checks a checkpoint's cosignatures with transparency-dev/formats.
func witnessed(vkey, quorum string, witnesses []string) error {
	needed, err := strconv.Atoi(quorum)
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	var others []note.Verifier
	for _, key := range witnesses {
		witness, err := fnote.NewVerifierForCosignatureV1(key)
		if err != nil {
			return err
		}
		others = append(others, witness)
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	checkpoint, _, opened, err := log.ParseCheckpoint(data, verifier.Name(), verifier, others...)
	if err != nil {
		return err
	}
	var times []int64
	for _, signature := range opened.Sigs {
		if signature.Name == verifier.Name() && signature.Hash == verifier.KeyHash() {
			continue
		}
		at, err := fnote.CoSigV1Timestamp(signature)
		if err != nil {
			return err
		}
		times = append(times, at.Unix())
	}
	if len(times) < needed {
		return fmt.Errorf("cosigned by %d, %d are needed", len(times), needed)
	}
	return say(map[string]any{"size": checkpoint.Size, "times": times})
}

// askWitness makes a log of its own, has a Keystead witness cosign it twice, and checks what it answers.
func askWitness(where, skey, witnessKey string) error {
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	witness, err := fnote.NewVerifierForCosignatureV1(witnessKey)
	if err != nil {
		return err
	}
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, hashes[index])
		}
		return found, nil
	})
	old := int64(0)
	for _, size := range []int64{1, 5, 5, 260} {
		for number := int64(0); number < size; number++ {
			if tlog.StoredHashCount(number) < int64(len(hashes)) {
				continue
			}
			stored, err := tlog.StoredHashes(number, []byte(strconv.FormatInt(number, 10)), reader)
			if err != nil {
				return err
			}
			if tlog.StoredHashIndex(0, number) == int64(len(hashes)) {
				hashes = append(hashes, stored...)
			}
		}
		root, err := tlog.TreeHash(size, reader)
		if err != nil {
			return err
		}
		body := fmt.Sprintf("old %d\n", old)
		if old > 0 && old < size {
			path, err := tlog.ProveTree(size, old, reader)
			if err != nil {
				return err
			}
			for _, hash := range path {
				body += base64.StdEncoding.EncodeToString(hash[:]) + "\n"
			}
		}
		checkpoint := log.Checkpoint{Origin: signer.Name(), Size: uint64(size), Hash: root[:]}
		signed, err := note.Sign(&note.Note{Text: string(checkpoint.Marshal())}, signer)
		if err != nil {
			return err
		}
		answer, err := http.Post(where+"/add-checkpoint", "text/plain", strings.NewReader(body+"\n"+string(signed)))
		if err != nil {
			return err
		}
		lines, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("size %d: the witness answers %d: %s", size, answer.StatusCode, lines)
		}
		opened, err := note.Open(append(signed, lines...), note.VerifierList(witness))
		if err != nil {
			return err
		}
		if len(opened.Sigs) != 1 {
			return fmt.Errorf("size %d: %d cosignatures", size, len(opened.Sigs))
		}
		old = size
	}
	return say(map[string]any{"size": old})
}
