"""From rows, labels and figures to the folder that is opened, verified and published."""
