c2s_ports = { 15222 }
