// A guest in Go: prints the SHA-256 of every file below the folders that are its arguments, as sha256sum does.
//
// With -w FILE the list goes to a file. Ends with 1 when something could not be read.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

func main() {
	to := flag.String("w", "", "write the list to `FILE`")
	flag.Parse()
	out := io.Writer(os.Stdout)
	if *to != "" {
		file, err := os.Create(*to)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer file.Close()
		out = file
	}
	fmt.Fprintf(os.Stderr, "hello from Go: %s/%s\n", runtime.GOOS, runtime.GOARCH)
	code := 0
	// A goroutine walks, this one hashes.
	paths := make(chan string, 16)
	failed := make(chan error, 1)
	go func() {
		defer close(paths)
		for _, folder := range flag.Args() {
			err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() {
					paths <- path
				}
				return err
			})
			if err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for path := range paths {
		if sum, err := hash(path); err == nil {
			fmt.Fprintf(out, "%x  %s\n", sum, path)
		} else {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := <-failed; err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code != 0 {
		os.Exit(code)
	}
}

func hash(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return sum.Sum(nil), err
}
