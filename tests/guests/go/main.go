// A guest in Go: prints the SHA-256 of every file below the folders that are its arguments, as sha256sum does.
//
// With -w FILE the list goes to a file. Ends with 1 when something could not be read. With -echo it serves one connection
// on the listening socket that it was given, and says so.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// echo sends back what comes over the first connection.
func echo() error {
	first, err := strconv.Atoi(os.Getenv("LISTEN_FD_FIRST"))
	if err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(uintptr(first), "listener"))
	if err != nil {
		return err
	}
	fmt.Println("listening")
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	copied, err := io.Copy(conn, conn)
	fmt.Println("sent back", copied)
	return err
}

func main() {
	to := flag.String("w", "", "write the list to `FILE`")
	serve := flag.Bool("echo", false, "serve one connection")
	flag.Parse()
	if *serve {
		if err := echo(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
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
