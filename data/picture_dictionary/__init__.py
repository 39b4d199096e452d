"""Images of things by many artists, each named in 36 languages."""
