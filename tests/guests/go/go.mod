module dhow.test/guest

go 1.27
