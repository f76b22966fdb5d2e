"""Every message, control file and result, as frozen pydantic models."""
