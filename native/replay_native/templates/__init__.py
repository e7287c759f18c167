"""What every template may hold, whatever the protocol: literals, numbers, UUIDs, e-mail addresses, clients."""
