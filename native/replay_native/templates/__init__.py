"""The parts of templates in every protocol: literals, numbers, UUIDs, e-mail addresses, clients."""
