package torture

// The fault layer itself: what a small program fsynced is in the picture, and nothing else.

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// actions is a program that does to the directory in $TORTURE_DATA what its arguments say, one after the other:
// w=NAME:TEXT appends, s=NAME fsyncs, u=NAME unlinks, r=OLD:NEW renames, m=NAME makes a directory, t=NAME:SIZE cuts.
const actions = `
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **words) {
    for (int i = 1; i < count; i++) {
        char path[4096], other[4096], *name = words[i] + 2, *more = strchr(name, ':');
        if (more) *more++ = 0;
        snprintf(path, sizeof path, "%s/%s", getenv("TORTURE_DATA"), name);
        int fd = -1, bad = 0;
        switch (words[i][0]) {
        case 'w': fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644); bad = write(fd, more, strlen(more)) < 0; break;
        case 's': fd = open(path, O_RDONLY); bad = fsync(fd); break;
        case 'u': bad = unlink(path); break;
        case 'r': snprintf(other, sizeof other, "%s/%s", getenv("TORTURE_DATA"), more); bad = rename(path, other); break;
        case 'm': bad = mkdir(path, 0755); break;
        case 't': fd = open(path, O_WRONLY); bad = ftruncate(fd, atol(more)); break;
        }
        if (bad) perror(words[i]);
        if (fd >= 0) close(fd);
    }
    return 0;
}`

func TestThePictureHasWhatWasFsynced(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	library, err := buildFaults(dir)
	if err != nil {
		t.Fatal(err)
	}
	source, program := filepath.Join(dir, "actions.c"), filepath.Join(dir, "actions")
	if err := os.WriteFile(source, []byte(actions), 0o644); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("cc", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v: %s", err, said)
	}
	cases := []struct{ name, actions, eio, expect string }{
		{"nothing", "", "", "old=before"},
		{"bytes without fsync", "w=old:more", "", "old=before"},
		{"bytes with fsync", "w=old:+ s=old", "", "old=before+"},
		{"a name without fsync", "w=new:x s=new", "", "old=before"},
		{"a name without bytes", "w=new:x s=.", "", "new= old=before"},
		{"name and bytes", "w=new:x s=new s=. w=new:y", "", "new=x old=before"},
		{"a removal without fsync", "u=old", "", "old=before"},
		{"a removal with fsync", "u=old s=.", "", ""},
		{"a rename without fsync", "w=a:x s=a s=. r=a:b", "", "a=x old=before"},
		{"a rename with fsync", "w=a:x s=a r=a:b s=.", "", "b=x old=before"},
		{"a rename over a name", "w=a:x s=a r=a:old s=.", "", "old=x"},
		{"a directory without its parent", "m=d w=d/f:x s=d/f s=d", "", "old=before"},
		{"a directory without its names", "m=d w=d/f:x s=d/f s=.", "", "d/ old=before"},
		{"a directory with both", "m=d w=d/f:x s=d/f s=d s=.", "", "d/ d/f=x old=before"},
		{"a cut without fsync", "t=old:3", "", "old=before"},
		{"a cut with fsync", "t=old:3 s=old", "", "old=bef"},
		{"a cut, written again", "t=old:3 w=old:1234 s=old", "", "old=bef1234"},
		{"an inode's number used again", "u=old w=new:x", "", "old=before"},
		{"an fsync that failed drops the bytes", "w=old:123 s=old w=old:4 s=old", "other:1", "old=before\x00\x00\x004"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			faults := Faults{Shadow: data + ".durable", EIO: c.eio}
			must(t, os.Mkdir(data, 0o755), os.WriteFile(filepath.Join(data, "old"), []byte("before"), 0o644), beginShadow(data, faults.Shadow))
			command := exec.Command(program, strings.Fields(c.actions)...)
			command.Env = (&Run{library: library}).env(data, faults)
			if said, err := command.CombinedOutput(); err != nil || (len(said) > 0) != (c.eio != "") {
				t.Fatalf("%v: %s", err, said)
			}
			root, err := objectName(data)
			must(t, err, unfold(faults.Shadow, root, data+".after"))
			if found := contents(t, data+".after"); found != c.expect {
				t.Errorf("%q gave %q, not %q", c.actions, found, c.expect)
			}
		})
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// contents is a directory as text: `d/` a directory, `f=text` a file.
func contents(t *testing.T, dir string) string {
	var found []string
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		below := strings.TrimPrefix(path, dir+"/")
		if err == nil && entry.IsDir() && path != dir {
			found = append(found, below+"/")
		}
		if err == nil && !entry.IsDir() {
			text, _ := os.ReadFile(path)
			found = append(found, fmt.Sprintf("%s=%s", below, text))
		}
		return err
	}))
	return strings.Join(found, " ")
}
