404: Not Found
