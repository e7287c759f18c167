"""Whether two builds answer the same: which fields of responses differ more between builds than between runs of one."""
