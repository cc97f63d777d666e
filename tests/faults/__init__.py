"""Jobs that share a store and are killed, over and over, at moments that hurt."""
