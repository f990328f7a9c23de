"""A server group whose keys and values have another form, as a zone of this client."""
