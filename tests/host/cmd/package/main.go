// Package writes the built plugin as the zip that Grafana installs: one folder, named as the plugin.
//
//	package --dist dist [--out .]
//
// It builds nothing: what dist/ holds goes in. Invariant: the same files give the same bytes, on every machine.
package main

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	programMode = 0o755 // Grafana starts it, and its validator wants exactly this
	fileMode    = 0o644
)

// manifest is what plugin.json says about the package.
type manifest struct {
	ID         string `json:"id"`
	Executable string `json:"executable"`
	Info       struct {
		Version string `json:"version"`
		Updated string `json:"updated"`
	} `json:"info"`
}

func main() {
	dist := flag.String("dist", "dist", "the built plugin")
	out := flag.String("out", ".", "where the zip goes")
	flag.Parse()
	written, err := write(*dist, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
	fmt.Println(written)
}

// write makes the zip and returns its path. A file that is not whole is never left behind.
func write(dist, out string) (string, error) {
	about, err := read(dist)
	if err != nil {
		return "", err
	}
	built, err := time.Parse(time.DateOnly, about.Info.Updated)
	if err != nil {
		return "", fmt.Errorf("info.updated of plugin.json: %w", err)
	}
	target := filepath.Join(out, about.ID+"-"+about.Info.Version+".zip")
	partial, err := os.CreateTemp(out, "package-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(partial.Name()) // gone by then, unless something failed
	archive := zip.NewWriter(partial)
	err = filepath.WalkDir(dist, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		inside, err := filepath.Rel(dist, file)
		if err != nil {
			return err
		}
		return add(archive, file, &zip.FileHeader{
			Name: path.Join(about.ID, filepath.ToSlash(inside)), Method: zip.Deflate, Modified: built,
		}, isProgram(entry.Name(), about.Executable))
	})
	if err := errors.Join(err, archive.Close(), partial.Chmod(fileMode), partial.Close()); err != nil {
		return "", err
	}
	return target, os.Rename(partial.Name(), target)
}

func read(dist string) (manifest, error) {
	var about manifest
	text, err := os.ReadFile(filepath.Join(dist, "plugin.json"))
	if err != nil {
		return about, fmt.Errorf("%w; run `make dist`", err)
	}
	if err := json.Unmarshal(text, &about); err != nil {
		return about, fmt.Errorf("plugin.json: %w", err)
	}
	programs, err := filepath.Glob(filepath.Join(dist, about.Executable+"_*"))
	if err == nil && len(programs) == 0 {
		err = fmt.Errorf("%q has no %s_…; run `make dist`", dist, about.Executable)
	}
	return about, err
}

func isProgram(name, executable string) bool { return strings.HasPrefix(name, executable+"_") }

func add(archive *zip.Writer, file string, header *zip.FileHeader, program bool) error {
	header.SetMode(fileMode)
	if program {
		header.SetMode(programMode)
	}
	source, err := os.Open(file)
	if err != nil {
		return err
	}
	defer source.Close()
	entry, err := archive.CreateHeader(header)
	if err != nil {
		return err
	}
	_, err = io.Copy(entry, source)
	return err
}
