"""The vendor in small: an Aleph-like API and an S3-like object store on two loopback ports.

A demo and a test bench in one. It is as strict as the real service where the real service is known
to be strict, and it breaks on demand, in named ways (`faults`). It knows nothing of the filesystem.

    catalogue   what is for sale: tasks, captures, scenes, attachments, as the API tells of them
    contents    what an attachment holds: bytes, a file, or bytes computed on the fly
    api, store  *pure*: a question in, an answer out
    signing, tokens, paging, answers    *pure*: what those two decide with
    faults, effects                     *pure*: what to break, and what breaking does
    serving     the only module that knows the server library: question in, answer out, sent
    server      `DemoOrigin`: both ports in a thread, with everything at hand for a test
    process     `DemoProcess`: the same in a process of its own
    showcase, products, imagery, terrain    the default catalogue, and imagery worth looking at
"""
