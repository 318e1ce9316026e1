package main

import (
	"context"
	"fmt"

	"viver.lan/internal/config"
)

// freezeSettings fixes the settings and logs them.
func (n *node) freezeSettings(context.Context) (string, error) {
	n.settings = n.config.Settings()
	for _, p := range n.config.Problems() {
		n.log.Warn("setting not used", "where", p)
	}
	set := 0
	for _, s := range n.config.List() {
		if s.Source != config.Default {
			set++
			n.log.Info("setting", "name", s.Name, "value", s.Value, "source", s.Source)
		}
	}
	detail := fmt.Sprintf("%d settings, %d of them not the default", len(config.Names()), set)
	if problems := len(n.config.Problems()); problems > 0 {
		return "", fmt.Errorf("%s, %d could not be used: %v", detail, problems, n.config.Problems())
	}
	return detail, nil
}
