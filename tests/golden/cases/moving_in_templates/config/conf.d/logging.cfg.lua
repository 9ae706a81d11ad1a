log = {
	${PROSODY_LOG_LEVEL:-info} = "*console";
}
