"""The REST interface: translates HTTP into services and selectors and back."""
