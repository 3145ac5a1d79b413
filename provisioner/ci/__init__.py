"""CI by intent: base.py is the seam, each other folder one provider."""
