package contain

import (
	"log/slog"
	"net/http"
)

// Handler contains what panics in h. The request's connection ends, as it does
// without Handler.
func Handler(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer Recover(log, "an HTTP request", func(error) { panic(http.ErrAbortHandler) })
		h.ServeHTTP(w, r)
	})
}
