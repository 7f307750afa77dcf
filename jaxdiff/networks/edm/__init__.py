"""The networks of the EDM papers: DDPM++, NCSN++ and ADM share an encoder and decoder; EDM2 keeps magnitudes."""
