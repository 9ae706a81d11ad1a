-- ${PROSODY_X} in a comment and a string is Lua.
x_text = "${PROSODY_X}"
