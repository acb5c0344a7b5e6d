"""gRPC over HTTP/2 on Trio: everything between a socket and one call's messages. It knows no rpc and no setting.

    framing      frames and messages in bytes, for both halves

The serving half:

    listening    the port, TLS, the preface
    connection   one connection and its tasks; streams: its state; floods: what a client may ask beside calls
    call         one call on it; heads: headers of calls; codes: how they end
    peers        who is at the other end, and the log of those who were refused

The asking half:

    client       a connection, for few long exchanges in which both sides talk at any time
"""
