"""What Ray has in ``ray.experimental``, as far as zray has it. Owns no connection."""
