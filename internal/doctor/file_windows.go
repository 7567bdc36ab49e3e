package doctor

// writable is not asked here: the first statement that writes will say.
func writable(string) error { return nil }
