"""Shows what zoomloc wrote: the Folium map. No torch, no model."""
