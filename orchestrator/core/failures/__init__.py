"""Why attempts fail: the kinds, and how what was left behind tells them."""
