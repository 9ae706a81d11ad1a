-- Where data go, and how long they are kept.

default_storage = --[[secret]] "shelf"

storage = {
	archive = --[[secret]] "attic";
	roster = --[[secret]] "null";
}
