"""Pretrained encoder weights: file formats, the exact key ledger, and the attestation that training checks again."""
