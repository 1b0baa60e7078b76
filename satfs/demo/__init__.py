"""The vendor in small: an Aleph-like API and an S3-like object store on two loopback ports.

It serves the demo and the tests. It is as strict as the real service where the real service is
known to be strict, and it breaks on demand, in named ways (`faults`). It knows nothing of the
filesystem.

    catalogue   tasks, captures, scenes, attachments, as the API returns them
    contents    an attachment's content: bytes, a file, or bytes computed on the fly
    api, store  *pure*: a request in, a response out
    signing, tokens, responses          *pure*: what those two decide with
    faults, effects                     *pure*: faults by name, and their effects
    serving     the only module that knows the server library: request in, response out, sent
    server      `DemoOrigin`: both ports in a thread, with everything at hand for a test
    process     `DemoProcess`: the same in a process of its own
    showcase, products, imagery, terrain    the default catalogue, and imagery worth looking at
"""
