// Tessera measures Tessera's POSIX driver: durable appends a second by concurrent callers, each waiting until its entry
// has a place in the log, and latency.
//
//	tessera DIR CALLERS ENTRIES BATCH BATCH-MILLISECONDS ENTRY-BYTES
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("usage: tessera DIR CALLERS ENTRIES BATCH BATCH-MILLISECONDS ENTRY-BYTES")
	}
	var numbers []int
	for _, text := range args[1:] {
		number, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		numbers = append(numbers, number)
	}
	callers, entries, batch, wait, size := numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
	ctx := context.Background()
	skey, _, err := note.GenerateKey(rand.Reader, "bench.example/log")
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	driver, err := posix.New(ctx, posix.Config{Path: args[0]})
	if err != nil {
		return err
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithBatching(uint(batch), time.Duration(wait)*time.Millisecond).
		WithPushback(uint(2 * callers))
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return err
	}
	each := entries / callers
	took := make([][]float64, callers)
	failed := make([]error, callers)
	var group sync.WaitGroup
	started := time.Now()
	for caller := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			for range each {
				data := make([]byte, size)
				if _, err := rand.Read(data); err != nil {
					failed[caller] = err
					return
				}
				at := time.Now()
				if _, err := appender.Add(ctx, tessera.NewEntry(data))(); err != nil {
					failed[caller] = err
					return
				}
				took[caller] = append(took[caller], time.Since(at).Seconds())
			}
		}()
	}
	group.Wait()
	seconds := time.Since(started).Seconds()
	var all []float64
	for caller := range callers {
		if failed[caller] != nil {
			return failed[caller]
		}
		all = append(all, took[caller]...)
	}
	sort.Float64s(all)
	if err := shutdown(ctx); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"entries":    float64(len(all)),
		"per_second": float64(len(all)) / seconds,
		"p50":        all[len(all)/2],
		"p99":        all[len(all)*99/100],
	})
}
