"""Drawings composed on one canvas, with questions about which, where and how many."""
