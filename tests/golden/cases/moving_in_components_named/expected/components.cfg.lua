-- Components: services with an address of their own.

Component "talk.domain.tld" "muc"
	restrict_room_creation = "local"
