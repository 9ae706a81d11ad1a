-- "{config}", "{data}"
first = "chat.example"
