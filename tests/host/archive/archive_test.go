// Package archive tests the zip that `make package` writes, by the rules that Grafana's catalog has for a plugin.
//
// The rules are those of grafana/plugin-validator 0.45.6 that read a package alone, and of Grafana 12.3's schema of
// plugin.json; no network is asked. The zip is the one that QUIVER_PACKAGE names; a missing one is a failure.
package archive

import (
	"archive/zip"
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const (
	pluginID   = "quiver-logs-datasource"
	executable = "gpx_quiver_logs"
	// top is the repository, from this package's directory.
	top = "../../.."
)

// entry is one file of the zip.
type entry struct {
	header *zip.FileHeader
	bytes  []byte
}

// open is the zip's files, by name in the plugin's folder, and the zip's own name.
func open(t *testing.T) (files map[string]entry, name string) {
	t.Helper()
	read, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return read, filepath.Base(os.Getenv("QUIVER_PACKAGE"))
}

var once = sync.OnceValues(func() (map[string]entry, error) {
	file := os.Getenv("QUIVER_PACKAGE")
	if file == "" {
		return nil, errors.New("QUIVER_PACKAGE is not set; run `make package`, then QUIVER_PACKAGE=…zip (or `make test`, which does both)")
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(top, file) // as typed at the top of the repository
	}
	archive, err := zip.OpenReader(file)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	files := map[string]entry{}
	for _, header := range archive.File {
		inside, ok := strings.CutPrefix(header.Name, pluginID+"/")
		if !ok {
			return nil, fmt.Errorf("%q is outside of the folder %q", header.Name, pluginID)
		}
		reader, err := header.Open()
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", header.Name, err)
		}
		files[inside] = entry{&header.FileHeader, content}
	}
	return files, nil
})

// text is the content of a file that has to be there.
func text(t *testing.T, files map[string]entry, name string) string {
	t.Helper()
	file, ok := files[name]
	if !ok || len(bytes.TrimSpace(file.bytes)) == 0 {
		t.Fatalf("the package has no %s, or an empty one", name)
	}
	return string(file.bytes)
}

func TestOnlyWhatGrafanaNeeds(t *testing.T) {
	allowed := regexp.MustCompile(`^(plugin\.json|module\.js(\.map)?|README\.md|CHANGELOG\.md|LICENSE` +
		`|` + executable + `_[a-z]+_[a-z0-9]+|img/[\w/-]+\.(svg|png)|dashboards/[\w-]+\.json)$`)
	files, _ := open(t)
	for name := range files {
		if !allowed.MatchString(name) {
			t.Errorf("%q does not belong into the package", name)
		}
	}
}

func TestPrograms(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	files, _ := open(t)
	programs := 0
	for name, file := range files {
		want := os.FileMode(0o644)
		if strings.HasPrefix(name, executable) {
			want = 0o755
			programs++
			system, architecture, _ := strings.Cut(strings.TrimPrefix(name, executable+"_"), "_")
			if system != "linux" {
				continue
			}
			program, err := elf.NewFile(bytes.NewReader(file.bytes))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if program.Machine != machines[architecture] {
				t.Errorf("%s is for %s", name, program.Machine)
			}
		}
		if mode := file.header.Mode(); mode != want {
			t.Errorf("%s has mode %o, not %o", name, mode, want)
		}
	}
	if programs == 0 {
		t.Errorf("no %s_OS_ARCH", executable)
	}
}

// TestOneVersion: the frontend's package, the backend's crate, the manifest, the changelog and the file agree.
func TestOneVersion(t *testing.T) {
	files, file := open(t)
	var manifest struct{ Info struct{ Version string } }
	if err := json.Unmarshal([]byte(text(t, files, "plugin.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	version := manifest.Info.Version
	if want := pluginID + "-" + version + ".zip"; file != want {
		t.Errorf("the package is called %q, not %q", file, want)
	}
	for source, pattern := range map[string]string{
		"frontend/package.json": `(?m)^  "version": "([^"]+)"`,
		"Cargo.toml":            `(?m)^version = "([^"]+)"`,
	} {
		content, err := os.ReadFile(filepath.Join(top, source))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindSubmatch(content)
		if len(found) == 0 || string(found[1]) != version {
			t.Errorf("%s has the version %q, plugin.json %q", source, found, version)
		}
	}
	if !strings.Contains(text(t, files, "module.js"), pluginID+"@"+version) {
		t.Errorf("module.js was not built for version %s", version)
	}
	if heading := "\n## " + version + "\n"; !strings.Contains(text(t, files, "CHANGELOG.md"), heading) {
		t.Errorf("CHANGELOG.md says nothing of version %s", version)
	}
}

func TestTexts(t *testing.T) {
	files, _ := open(t)
	readme := text(t, files, "README.md")
	if !strings.HasPrefix(readme, "# ") {
		t.Error("README.md does not begin with a title")
	}
	for _, rule := range []struct{ pattern, broken string }{
		{`<!--`, "has a comment, which the catalog shows"},
		{`(?i)Grafana (Panel|Data Source|Datasource|App|Data Source Backend) Plugin Template`, "is the template's"},
		{`yarn|nodejs`, "has a developer's words"},
		{`\]\((?:[^h#]|h[^t])[^)]*\)`, "has a relative link, which leads nowhere in the catalog"},
	} {
		if found := regexp.MustCompile(rule.pattern).FindString(readme); found != "" {
			t.Errorf("README.md %s: %q", rule.broken, found)
		}
	}
	licence := text(t, files, "LICENSE")
	if !strings.Contains(licence, "Apache License") || !strings.Contains(licence, "Version 2.0, January 2004") {
		t.Error("LICENSE is not the Apache License 2.0")
	}
	if found := regexp.MustCompile(`[\[{](name of copyright owner|yyyy)[\]}]`).FindString(licence); found != "" {
		t.Errorf("LICENSE has the placeholder %q", found)
	}
}

// TestDashboards: what the manifest includes is there and is a dashboard.
func TestDashboards(t *testing.T) {
	files, _ := open(t)
	var manifest struct {
		Includes []struct{ Type, Path string }
	}
	if err := json.Unmarshal([]byte(text(t, files, "plugin.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	paths := map[string]bool{}
	for _, include := range manifest.Includes {
		if include.Type == "dashboard" {
			paths[include.Path] = true
		}
	}
	for name := range files {
		if path.Dir(name) == "dashboards" {
			paths[name] = true
		}
	}
	for name := range paths {
		var dashboard struct {
			UID, Title string
			Panels     []json.RawMessage
		}
		if err := json.Unmarshal([]byte(text(t, files, name)), &dashboard); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if cmp.Or(dashboard.UID, dashboard.Title) == "" || len(dashboard.Panels) == 0 {
			t.Errorf("%s has no uid, no title or no panels", name)
		}
	}
}
