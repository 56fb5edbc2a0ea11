raise SystemExit("never run here")
