"""From the bytes of a request to a typed job, one module an endpoint, refusing what LM Studio refuses."""
