"""What a person looks at: pictures in, panels out, names of classes."""
