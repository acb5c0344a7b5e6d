"""The image, the chart and what installs them."""
