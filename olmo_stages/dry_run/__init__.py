"""What a launch would do, without doing it: `dry_run=true`."""
