a link to {config}/conf.d
