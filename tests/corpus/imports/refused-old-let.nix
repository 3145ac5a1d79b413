let { body = { imports = [ ]; }; }
