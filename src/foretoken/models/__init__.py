"""The models: wiring only. Arithmetic is in `ops`, memory of the past in `cache`, numbers in `weights`."""
