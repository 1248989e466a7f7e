"""The commands of `clipmg`, one in each module; `clipmg_hf.cli` puts them together."""
