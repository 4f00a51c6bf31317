package push

import (
	"context"
	"errors"
	"sync"

	sdklog "go.opentelemetry.io/otel/sdk/log"
)

// failures remembers what the exporter under it could not send: the SDK's batch processor hands export errors to a
// global handler, and a lost batch would otherwise look like an acknowledged one.
type failures struct {
	sdklog.Exporter

	mutex sync.Mutex
	errs  []error
}

func (f *failures) Export(ctx context.Context, records []sdklog.Record) error {
	err := f.Exporter.Export(ctx, records)
	if err != nil {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		f.errs = append(f.errs, err)
	}
	return err
}

func (f *failures) take() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	err := errors.Join(f.errs...)
	f.errs = nil
	return err
}
