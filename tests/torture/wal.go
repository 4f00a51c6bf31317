package torture

// Reading the write-ahead log's files as docs/format.md tells, to know what damage may cost.

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
)

const (
	walMagic         = "QVRWAL01"
	frameMagic       = 0x51464d31
	frameHeaderBytes = 24
)

// Frame is a whole frame's place in its file.
type Frame struct {
	Start, End int
	Rows       int
}

// readWAL gives the frames of a file; all of it has to be frames.
func readWAL(content []byte) ([]Frame, error) {
	if len(content) < len(walMagic) || string(content[:len(walMagic)]) != walMagic {
		return nil, fmt.Errorf("the file does not begin with %q", walMagic)
	}
	var frames []Frame
	for at := len(walMagic); at < len(content); {
		header := content[at:]
		if len(header) < frameHeaderBytes || binary.LittleEndian.Uint32(header) != frameMagic {
			return nil, fmt.Errorf("no frame at %d", at)
		}
		end := frameHeaderBytes + int(binary.LittleEndian.Uint32(header[4:]))
		if end > len(header) {
			return nil, fmt.Errorf("the frame at %d is cut", at)
		}
		sum := crc32.Update(crc32.ChecksumIEEE(header[:20]), crc32.IEEETable, header[frameHeaderBytes:end])
		if sum != binary.LittleEndian.Uint32(header[20:]) {
			return nil, fmt.Errorf("the frame at %d has another checksum", at)
		}
		frames = append(frames, Frame{at, at + end, int(binary.LittleEndian.Uint32(header[8:]))})
		at += end
	}
	return frames, nil
}

// walFiles lists the log's files, oldest first.
func walFiles(dataDir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dataDir, "wal", "*.wal"))
	slices.Sort(files)
	return files, err
}

func lastWAL(dataDir string) (string, []byte, error) {
	files, err := walFiles(dataDir)
	if err != nil || len(files) == 0 {
		return "", nil, fmt.Errorf("'%s' has no write-ahead log: %w", dataDir, err)
	}
	path := files[len(files)-1]
	content, err := os.ReadFile(path)
	return path, content, err
}
