package archive

import (
	"bytes"
	"encoding/json"
	"image/png"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	screenshotWidthMin = 1000
	imageBytesMax      = 400 << 10
)

// manifest is Grafana 12.3's schema of plugin.json for a data source, which takes no other names.
type manifest struct {
	Schema                    string `json:"$schema"`
	Type                      string
	Name                      string
	ID                        string
	Category                  string
	Backend                   bool
	Executable                string
	Logs                      bool
	Metrics                   bool
	Alerting                  bool
	Annotations               bool
	Streaming                 bool
	Tracing                   bool
	MultiValueFilterOperators bool
	BuildMode                 string
	QueryOptions              struct{ MaxDataPoints, MinInterval, CacheTimeout bool }
	Includes                  []struct{ Type, Name, Path, UID, Role string }
	Info                      struct {
		Description string
		Keywords    []string
		Version     string
		Updated     string
		Author      struct{ Name, Email, URL string }
		Logos       struct{ Small, Large string }
		Links       []struct{ Name, URL, Target string }
		Screenshots []struct{ Name, Path string }
	}
	Dependencies struct {
		GrafanaDependency string
		Plugins           []struct{ ID, Name, Type string }
	}
}

func readManifest(t *testing.T, files map[string]entry) manifest {
	t.Helper()
	var about manifest
	decoder := json.NewDecoder(strings.NewReader(text(t, files, "plugin.json")))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&about); err != nil {
		t.Fatalf("plugin.json: %v", err)
	}
	return about
}

func TestManifest(t *testing.T) {
	files, _ := open(t)
	about := readManifest(t, files)
	for _, rule := range []struct{ name, value, pattern string }{
		{"type", about.Type, `^datasource$`},
		{"id", about.ID, `^[0-9a-z]+-([0-9a-z]+-)?datasource$`},
		{"id", about.ID, `^` + pluginID + `$`},
		{"category", about.Category, `^(tsdb|logging|cloud|tracing|profiling|sql|enterprise|iot|other)$`},
		{"executable", about.Executable, `^` + executable + `$`},
		{"buildMode", about.BuildMode, `^production$`},
		{"info.version", about.Info.Version, `^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$`},
		{"info.updated", about.Info.Updated, `^\d{4}-\d{2}-\d{2}$`},
		{"info.description", about.Info.Description, `^.{20,}$`},
		{"info.author.name", about.Info.Author.Name, `.`},
		{"dependencies.grafanaDependency", about.Dependencies.GrafanaDependency, `^>=12\.\d+\.\d+$`},
	} {
		if !regexp.MustCompile(rule.pattern).MatchString(rule.value) {
			t.Errorf("plugin.json: %s is %q, which does not match %s", rule.name, rule.value, rule.pattern)
		}
	}
	if about.Name == "" || about.Name == about.ID {
		t.Errorf("plugin.json: %q is no name for people", about.Name)
	}
	if !about.Backend {
		t.Error("plugin.json: backend is false")
	}
	if len(about.Info.Keywords) == 0 || slices.Contains(about.Info.Keywords, "") {
		t.Errorf("plugin.json: keywords are %q", about.Info.Keywords)
	}
	if len(about.Info.Links) == 0 {
		t.Error("plugin.json: no links")
	}
	for _, link := range about.Info.Links {
		if address, err := url.Parse(link.URL); err != nil || address.Scheme != "https" || link.Name == "" {
			t.Errorf("plugin.json: link %+v", link)
		}
	}
}

func TestImages(t *testing.T) {
	files, _ := open(t)
	about := readManifest(t, files)
	images := []string{about.Info.Logos.Small, about.Info.Logos.Large}
	for _, logo := range images {
		if path.Ext(logo) != ".svg" {
			t.Errorf("logo %q is not an SVG", logo)
		}
	}
	if len(about.Info.Screenshots) == 0 {
		t.Error("plugin.json: no screenshots")
	}
	for _, screenshot := range about.Info.Screenshots {
		if screenshot.Name == "" || path.Ext(screenshot.Path) != ".png" {
			t.Errorf("screenshot %+v has no name or is no PNG", screenshot)
		}
		images = append(images, screenshot.Path)
	}
	for _, image := range images {
		content := []byte(text(t, files, image))
		if len(content) > imageBytesMax {
			t.Errorf("%s has %d bytes, more than %d", image, len(content), imageBytesMax)
		}
		if path.Ext(image) == ".svg" {
			checkDrawing(t, image, content)
			continue
		}
		if config, err := png.DecodeConfig(bytes.NewReader(content)); err != nil {
			t.Errorf("%s: %v", image, err)
		} else if config.Width < screenshotWidthMin {
			t.Errorf("%s is %d wide, less than %d", image, config.Width, screenshotWidthMin)
		}
	}
}

// checkDrawing: Grafana puts the logo into its pages, so it has to draw and do nothing else.
func checkDrawing(t *testing.T, name string, svg []byte) {
	t.Helper()
	if !bytes.Contains(svg, []byte("<svg")) {
		t.Errorf("%s is no SVG", name)
	}
	unsafe := regexp.MustCompile(`(?i)<(script|foreignObject|iframe|image|use|a)\b|\son\w+\s*=|href\s*=|javascript:|url\(["']?[^#"')]`)
	if found := unsafe.Find(svg); found != nil {
		t.Errorf("%s has %q in it", name, found)
	}
}
