"""The work of a cell: pretrain, fine-tune, score, connect; each returns what it measured."""
