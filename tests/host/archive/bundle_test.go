package archive

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const bundleBytesMax = 400 << 10 // compressed, as Grafana sends it

// provided is what Grafana 12.3 gives a plugin at runtime: each is there once, and so is never in the bundle.
var provided = []string{
	"@emotion/css", "@grafana/data", "@grafana/i18n", "@grafana/runtime", "@grafana/ui", "lodash", "module", "react",
	"react-dom", "react/jsx-runtime", "rxjs", "rxjs/operators",
}

func TestBundleIsSmall(t *testing.T) {
	files, _ := open(t)
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed)
	for name := range files {
		if strings.HasSuffix(name, ".js") {
			if _, err := writer.Write([]byte(text(t, files, name))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if compressed.Len() > bundleBytesMax {
		t.Errorf("the JavaScript has %d bytes compressed, more than %d", compressed.Len(), bundleBytesMax)
	}
	t.Logf("the JavaScript has %d bytes compressed", compressed.Len())
}

func TestBundleTakesWhatGrafanaGives(t *testing.T) {
	files, _ := open(t)
	found := regexp.MustCompile(`(?m)^define\((\[[^\]]*\])`).FindStringSubmatch(text(t, files, "module.js"))
	if found == nil {
		t.Fatal("module.js is no AMD module")
	}
	var wanted []string
	if err := json.Unmarshal([]byte(found[1]), &wanted); err != nil {
		t.Fatal(err)
	}
	for _, name := range wanted {
		if !slices.Contains(provided, name) {
			t.Errorf("module.js asks for %q, which Grafana does not give", name)
		}
	}
	if !slices.Contains(wanted, "react") || !slices.Contains(wanted, "react/jsx-runtime") {
		t.Errorf("module.js brings a React of its own; it asks for %q only", wanted)
	}
}

// TestReact19 looks for what React 19, and so Grafana 13, has taken away.
func TestReact19(t *testing.T) {
	gone := []string{
		`__SECRET_INTERNALS_DO_NOT_USE_OR_YOU_WILL_BE_FIRED`, `Symbol\.for\("react\.element"\)`, `findDOMNode`,
		`unmountComponentAtNode`, `ReactDOM\.(render|hydrate)\b`, `unstable_renderSubtreeIntoContainer`,
		`createFactory\(`, `\.propTypes\b`, `\.contextTypes\b`, `\.childContextTypes\b`, `getChildContext`,
		`\.defaultProps\b`, `ref:"\w+"`, `react-dom/test-utils`,
	}
	files, _ := open(t)
	bundle := text(t, files, "module.js")
	for _, pattern := range gone {
		if found := regexp.MustCompile(pattern).FindString(bundle); found != "" {
			t.Errorf("module.js uses %q, which React 19 does not have", found)
		}
	}
}

// TestSourceMap: the map is module.js's, and its sources are the repository's, byte for byte.
func TestSourceMap(t *testing.T) {
	files, _ := open(t)
	if !strings.HasSuffix(strings.TrimSpace(text(t, files, "module.js")), "//# sourceMappingURL=module.js.map") {
		t.Error("module.js does not name its map")
	}
	var sourceMap struct {
		Version                 int
		File, Mappings          string
		Sources, SourcesContent []string
	}
	if err := json.Unmarshal([]byte(text(t, files, "module.js.map")), &sourceMap); err != nil {
		t.Fatal(err)
	}
	if sourceMap.Version != 3 || sourceMap.File != "module.js" || sourceMap.Mappings == "" ||
		len(sourceMap.Sources) != len(sourceMap.SourcesContent) {
		t.Fatalf("module.js.map: version %d, file %q, %d sources, %d contents", sourceMap.Version, sourceMap.File,
			len(sourceMap.Sources), len(sourceMap.SourcesContent))
	}
	compared := 0
	for i, source := range sourceMap.Sources {
		name, ours := strings.CutPrefix(source, "webpack://"+pluginID+"/./")
		if !ours || strings.HasPrefix(name, "node_modules/") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(top, "frontend/src", name))
		if err != nil {
			t.Errorf("module.js.map: %v", err)
		} else if string(content) != sourceMap.SourcesContent[i] {
			t.Errorf("module.js was built of another %s; run `make dist`", name)
		}
		compared++
	}
	if compared == 0 {
		t.Errorf("module.js.map names no source of ours: %q", sourceMap.Sources)
	}
}
