"""The signed repository, channels, ladders and the statistics that move them."""
